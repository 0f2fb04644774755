"""Layouts beyond a reshape: of one leaf, and of the parts that a packed leaf is made of."""

from equiv.layouts.one import Chain as Chain
from equiv.layouts.one import Flip as Flip
from equiv.layouts.one import MergeAxes as MergeAxes
from equiv.layouts.one import Shift as Shift
from equiv.layouts.one import Squeeze as Squeeze
from equiv.layouts.one import SwapAxes as SwapAxes
from equiv.layouts.one import of_updates as of_updates
from equiv.layouts.packed import Columns as Columns
from equiv.layouts.packed import Gate as Gate
from equiv.layouts.packed import check_regions as check_regions
from equiv.layouts.packed import to_native as to_native
