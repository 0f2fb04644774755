"""Npz files whose leaves are not those of the case: their names, shapes, dtypes and values."""

import convert_helpers as h
import numpy as np
from conversion.good_checkpoint import KERNEL, changed, nan, npz, with_two_trees


def infinite(kernel):
    """One infinite value."""
    kernel = kernel.copy()
    kernel[0, 0] = -np.inf
    return kernel


BAD = {
    "missing leaf": (npz(**{KERNEL: None}), r"1 of the 7 leaves of haiku missing, first 'params/linear/w' float32"),
    "extra leaf": (npz(params__other__w=np.ones(3)), r"1 leaf too many for haiku, first 'params/other/w'"),
    "renamed leaf": (
        npz(**{KERNEL: None, "params/linear/ww": np.ones((3, 4), "f4")}),
        r"'params/linear/ww' float32\[3, 4\], close to 'params/linear/w'",
    ),
    "misshaped leaf": (changed(np.transpose), r"leaf 'params/linear/w' is float32\[.*, haiku has float32\["),
    "mistyped leaf": (changed(np.float64), r"leaf 'params/linear/w' is float64.*haiku has float32.*Save it as that"),
    "whole numbers": (changed(np.int32), r"leaf 'params/linear/w' is int32"),
    "other byte order": (changed(lambda w: w.astype(">f4")), r"leaf 'params/linear/w' is >f4"),
    "nan": (changed(nan), r"leaf 'params/linear/w' is nan at \[1, 2\].*--allow-nonfinite"),
    "infinite": (changed(infinite), r"leaf 'params/linear/w' is -inf at \[0, 0\]"),
    "nan in the optimizer": (
        npz(opt_state__0__nu__linear__b=np.full(7, np.nan, "f4")),
        r"'opt_state/0/nu/linear/b' is nan",
    ),
    "two spellings of a leaf": (
        npz(**{"params.linear.w": np.ones((3, 4), "f4")}),
        r"'params/linear/w' and 'params\.linear\.w' are both linear/kernel\. Pass --drop",
    ),
    "two trees of parameters": (with_two_trees, r"'ema' and 'params' hold 2 leaves|'params' and 'ema' hold 2 leaves"),
    "a count that does not fit": (
        npz(opt_state__0__count=np.int64(2**40)),
        r"opt_state/mu,nu/count is 1099511627776, which int32 cannot hold",
    ),
    "another optimizer": (npz(opt_state__0__trace__linear__w=np.ones((3, 4), "f4")), r"'opt_state/0/trace/linear/w'"),
    "part of an optimizer": (npz(opt_state__0__nu__linear__w=None), r"missing, first 'opt_state/0/nu/linear/w'"),
    "another case": (
        lambda folder: h.save(folder / "old.npz", "haiku", h.trained("layers/norm_layer", "haiku")),
        r"is one of the 2 of haiku, first 'params/linear/b'.*Give the case of this checkpoint",
    ),
    "name with a way out": (npz(**{"../../../tmp/evil": np.ones(3)}), r"first '\.\./\.\./\.\./tmp/evil'"),
}
"""What is wrong, to what makes the file in a folder and the message that it gives."""
