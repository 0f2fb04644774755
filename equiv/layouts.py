"""Layouts of a leaf, for a case file."""

from equiv.core.layouts import Chain as Chain
from equiv.core.layouts import Flip as Flip
from equiv.core.layouts import MergeAxes as MergeAxes
from equiv.core.layouts import Scale as Scale
from equiv.core.layouts import Shift as Shift
from equiv.core.layouts import SplitAxis as SplitAxis
from equiv.core.layouts import Squeeze as Squeeze
from equiv.core.layouts import SwapAxes as SwapAxes
from equiv.core.layouts import Transpose as Transpose
from equiv.core.packing import Block as Block
from equiv.core.packing import Columns as Columns
from equiv.core.packing import Gate as Gate
