"""What is on the machine, told by names, sizes and times, without opening a file."""

from __future__ import annotations

from tests.hostile.case import held

# Source text as it is: the formatter would spread every case over six lines and more.
# fmt: off

# Not PROJECT itself: an environment inside the clone has that name above the folder of its packages.
for path in (
    "TARGET", "TARGET/secret.txt", "PROJECT/README.md", "CLONE/hackward/grading/zygote.py",
    "CLONE/hackward/grading/checks.py", "/etc/passwd", "/etc/hostname", "/etc/os-release", "/var",
    "/home", "/run", "/boot", "/proc", "/proc/self", "/proc/1", "/proc/self/exe", "/proc/self/fd/3", "/sys",
    "/dev/shm", "/dev/tty", "/dev/kmsg", "/usr/bin/env", "/bin/sh", "/usr/lib/os-release",
):
    held("metadata", f"stat_{path.strip('/').replace('/', '_')}", f"""
import os
os.stat({path!r})
""")

held("metadata", "lstat", """
import os
os.lstat('/proc/self')
""")
held("metadata", "access", """
import os
assert os.access('/etc/passwd', os.F_OK) or os.access('TARGET', os.F_OK)
""")
held("metadata", "readlink", """
import os
for path in ('/proc/self/exe', '/proc/self/cwd', '/proc/self/fd/3', '/etc/mtab', '/bin', '/lib/systemd'):
    try:
        os.readlink(path)
        break
    except OSError:
        pass
else:
    raise OSError
""")
held("metadata", "statvfs", """
import os
os.statvfs('/')
""")
held("metadata", "through_a_descriptor", """
import os
os.stat('etc', dir_fd=os.open('/', os.O_RDONLY))
""")
held("metadata", "installed_packages", """
import glob, sysconfig
place = sysconfig.get_path('stdlib')
assert glob.glob(place + '/site-packages/*') or glob.glob(place + '/dist-packages/*')
""")
held("metadata", "installed_libraries", """
import os
places = [place for place in ('/usr/lib', '/lib', '/usr/lib/x86_64-linux-gnu') if os.path.isdir(place)]
assert sum(len(os.listdir(place)) for place in places) > 100
""")
held("metadata", "name_of_the_machine", """
import os, socket
assert os.uname().nodename != 'localhost'
""")
held("metadata", "users", """
import pwd
pwd.getpwuid(0)
""")
held("metadata", "mount_table", "open('/proc/self/mountinfo').read()")
held("metadata", "own_command_line", "open('/proc/self/cmdline').read()")
held("metadata", "maps", "open('/proc/self/maps').read()")
held("metadata", "path_of_the_worker", """
import os, sys
main = sys.modules['__main__'].__file__
os.stat(main)
""")
