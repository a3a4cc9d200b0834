"""Exit codes: what a script learns from a command."""

from __future__ import annotations

from enum import IntEnum

from eventmig import errors


class ExitCode(IntEnum):
    """The exit code of every command."""

    DONE = 0
    FOUND = 1
    USAGE = 2
    INPUT = 3
    STOPPED = 4
    LOCKED = 5
    INTERRUPTED = 130


MEANING = {
    ExitCode.DONE: "done; nothing to mend",
    ExitCode.FOUND: "the command worked and found something: check findings, a plan with "
    "problems, mismatches, events in quarantine",
    ExitCode.USAGE: "a wrong argument or option",
    ExitCode.INPUT: "the configuration, the registry, the lock file or an imported file is not "
    "right",
    ExitCode.STOPPED: "a store, job or rebuild could not go on; nothing is half done, and the "
    "same command resumes",
    ExitCode.LOCKED: "another process has the target, or took it over",
    ExitCode.INTERRUPTED: "stopped by Ctrl-C; the same command resumes",
}

INTERRUPTED = "interrupted; everything up to the last batch is kept, and the same command resumes"


def exit_code(error: errors.EventmigError) -> ExitCode:
    """The exit code that an error ends a command with."""
    match error:
        case errors.JobLockedError() | errors.JobLostError():
            return ExitCode.LOCKED
        case errors.VerifyError() | errors.CheckError():
            return ExitCode.FOUND
        case (
            errors.ConfigError()
            | errors.RegistryError()
            | errors.ReleaseError()
            | errors.DataError()
        ):
            return ExitCode.INPUT
    return ExitCode.STOPPED
