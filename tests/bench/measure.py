"""What a process costs: CPU, context switches, system calls, memory; and how fast the disk syncs."""
import os
import shutil
import statistics
import subprocess
import time

from harness import let_pass

# Shown one by one beside the sum.
CALLS = ("epoll_wait", "epoll_ctl", "recvfrom", "read", "write", "writev", "sendmsg", "sendto", "futex", "pwritev", "pwritev2", "fdatasync")


def median(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def percentile(values, share):
    ordered = sorted(values)
    return ordered[int((len(ordered) - 1) * share)] if ordered else None


def read(path):
    try:
        with open(path) as f:
            return f.read()
    except OSError:  # the thread or process has just ended
        return ""


def status_field(text, key):
    for line in text.splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    return 0


class Cost:
    """What all threads of a process have used so far; b - a is what lies between."""

    def __init__(self, pid=None):
        self.ran_us = self.user_us = self.system_us = self.voluntary = self.involuntary = 0.0
        if pid is None:
            return
        fields = read(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
        tick = 1e6 / os.sysconf("SC_CLK_TCK")
        self.user_us, self.system_us = int(fields[11]) * tick, int(fields[12]) * tick
        for task in os.listdir(f"/proc/{pid}/task"):
            sched = read(f"/proc/{pid}/task/{task}/schedstat").split()
            self.ran_us += int(sched[0]) / 1e3 if sched else 0
            text = read(f"/proc/{pid}/task/{task}/status")
            self.voluntary += status_field(text, "voluntary_ctxt_switches")
            self.involuntary += status_field(text, "nonvoluntary_ctxt_switches")
        if self.ran_us == 0:  # a kernel without schedstat: ticks of 10 ms must do
            self.ran_us = self.user_us + self.system_us

    def __sub__(self, other):
        d = Cost()
        for key, value in vars(self).items():
            setattr(d, key, value - getattr(other, key))
        return d


def family_cpu_us(leader):
    """CPU of a process, its living descendants and those it has waited for; in ticks of 10 ms."""
    stats = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        text = read(f"/proc/{name}/stat")
        if text:
            stats[int(name)] = text.rsplit(")", 1)[1].split()
    mine, ticks = {leader}, 0
    while True:
        more = {pid for pid, f in stats.items() if int(f[1]) in mine} - mine
        if not more:
            break
        mine |= more
    for pid in mine & stats.keys():
        ticks += sum(int(v) for v in stats[pid][11:15])
    return ticks * 1e6 / os.sysconf("SC_CLK_TCK")


def anon_octets(pid):
    """Memory that is no file's: what the process itself holds."""
    return status_field(read(f"/proc/{pid}/status"), "RssAnon") * 1024


class Calls:
    """System calls of all threads of a process between start and stop, counted by perf, else by strace."""

    def __init__(self, pid, out):
        self.out, self.why_not, self.p = out, None, None
        events = ["raw_syscalls:sys_enter"] + [f"syscalls:sys_enter_{c}" for c in CALLS]
        if self.has_perf():
            argv = ["perf", "stat", "-x", ";", "-o", out, "-p", str(pid)]
            for e in events:
                argv += ["-e", e]
            self.tool = "perf"
        elif shutil.which("strace"):
            argv = ["strace", "-f", "-c", "-o", out, "-p", str(pid)]
            self.tool = "strace"
        else:
            self.why_not = "neither perf (tracepoints) nor strace can be used here"
            return
        self.p = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        let_pass(0.4, "a tool that cannot attach says so and ends")
        if self.p.poll() is not None:
            self.why_not = f"{self.tool} cannot attach"

    @staticmethod
    def has_perf():
        if not shutil.which("perf"):
            return False
        r = subprocess.run(["perf", "stat", "-e", "raw_syscalls:sys_enter", "true"], capture_output=True)
        return r.returncode == 0 and b"not supported" not in r.stderr

    def stop(self):
        """{"all": n, call: n} or None."""
        if self.p is None:
            return None
        if self.p.poll() is None:
            self.p.send_signal(2)
            try:
                self.p.wait(20)
            except subprocess.TimeoutExpired:
                self.p.kill()
                self.p.wait()
        counts = {}
        for line in read(self.out).splitlines():
            if self.tool == "perf":
                parts = line.split(";")
                if len(parts) > 2 and parts[0].isdigit():
                    counts["all" if parts[2].startswith("raw_") else parts[2].split("sys_enter_")[1]] = int(parts[0])
            else:
                words = line.split()
                if len(words) >= 5 and words[3].isdigit():
                    counts["all" if words[-1] == "total" else words[-1]] = int(words[3])
        if "all" not in counts:
            self.why_not = self.why_not or f"{self.tool} gave no figures"
            return None
        return counts


def fdatasync_seconds(folder, samples=200, pause=0):
    """p50 of fdatasync after 4 KB into a file that was written before; `pause` seconds between them, since a disk that was left
    alone for a moment may take longer."""
    path = os.path.join(folder, "sync-probe")
    block = os.urandom(4096)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, samples * 4096)
        for i in range(samples):
            os.pwrite(fd, block, i * 4096)
        os.fsync(fd)
        took = []
        for i in range(samples):
            os.pwrite(fd, block, i * 4096)
            start = time.perf_counter()
            os.fdatasync(fd)
            took.append(time.perf_counter() - start)
            let_pass(pause, "the pause between two syncs")
    finally:
        os.close(fd)
        os.unlink(path)
    return percentile(took, 0.5)
