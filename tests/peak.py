"""Source for a process of its own: `peak()`, the most memory that it ever held, in MiB."""

# Not `ru_maxrss` on Linux: a new process begins with its parent's there, and the parent is a large process of pytest.
PEAK = """
import resource
from pathlib import Path

def peak():
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
"""
