"""The layers that `equiv` knows: kinds and their leaves, rows of a layer table, pairs of the libraries' own layers."""

from equiv.layers.kinds import GATES as GATES
from equiv.layers.kinds import KINDS as KINDS
from equiv.layers.kinds import canonical as canonical
from equiv.layers.kinds import leaves_of as leaves_of
from equiv.layers.rows import attention as attention
from equiv.layers.rows import batch_norm as batch_norm
from equiv.layers.rows import conv as conv
from equiv.layers.rows import conv_lstm as conv_lstm
from equiv.layers.rows import conv_transpose as conv_transpose
from equiv.layers.rows import embed as embed
from equiv.layers.rows import group_norm as group_norm
from equiv.layers.rows import instance_norm as instance_norm
from equiv.layers.rows import layer_norm as layer_norm
from equiv.layers.rows import linear as linear
from equiv.layers.rows import lstm as lstm
from equiv.layers.rows import module as module
from equiv.layers.rows import parameter as parameter
from equiv.layers.rows import rms_norm as rms_norm
from equiv.layers.rows import spectral_norm as spectral_norm
from equiv.layers.rows import state as state
from equiv.layers.rows import vanilla_rnn as vanilla_rnn
