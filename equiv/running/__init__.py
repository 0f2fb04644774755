"""Many cases, each in a process of its own: on this machine or on a cluster, with limits, and with a journal."""

from equiv.running.run_tasks import Place as Place
from equiv.running.task import Limits as Limits
