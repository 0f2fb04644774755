"""Rows of a layer table, for a case file."""

from equiv.core.layers import attention as attention
from equiv.core.layers import batch_norm as batch_norm
from equiv.core.layers import conv as conv
from equiv.core.layers import conv_lstm as conv_lstm
from equiv.core.layers import conv_transpose as conv_transpose
from equiv.core.layers import embed as embed
from equiv.core.layers import group_norm as group_norm
from equiv.core.layers import instance_norm as instance_norm
from equiv.core.layers import layer_norm as layer_norm
from equiv.core.layers import linear as linear
from equiv.core.layers import lstm as lstm
from equiv.core.layers import module as module
from equiv.core.layers import only as only
from equiv.core.layers import parameter as parameter
from equiv.core.layers import rms_norm as rms_norm
from equiv.core.layers import spectral_norm as spectral_norm
from equiv.core.layers import state as state
from equiv.core.layers import vanilla_rnn as vanilla_rnn
