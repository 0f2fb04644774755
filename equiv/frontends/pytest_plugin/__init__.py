"""The pytest plugin, loaded when a case or the fixture is first met."""
