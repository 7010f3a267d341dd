"""A simulated Cuvis library for tests: our own C file under the real ``cuvis`` package.

It proves that the reader calls the real wrapper rightly and handles what can come back. It says
nothing about Cubert's files or values; see ``docs/cu3s.md``.
"""

from simulated_cuvis.plugin import Library, build_library, cuvis_environment
from simulated_cuvis.session_file import Fault, Hole, write_session

__all__ = ["Fault", "Hole", "Library", "build_library", "cuvis_environment", "write_session"]
