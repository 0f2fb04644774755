"""The plots of the page, as static SVG."""
