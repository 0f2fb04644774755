"""What a case file imports."""

from equiv.backends.haiku.known_differences import zero_debias as zero_debias
from equiv.core.case import BatchInvariance as BatchInvariance
from equiv.core.case import CallSequence as CallSequence
from equiv.core.case import Case as Case
from equiv.core.case import Depths as Depths
from equiv.core.case import Deviation as Deviation
from equiv.core.case import KnownDifference as KnownDifference
from equiv.core.case import Layer as Layer
from equiv.core.case import Padding as Padding
