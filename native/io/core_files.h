// Core files: a process that holds keys leaves no copy of its memory behind when it crashes.
//
// For the whole process and until it ends, so it is for programs to ask for and not for a library.
// Programs that it starts are as they were.
#ifndef FIRN_IO_CORE_FILES_H_
#define FIRN_IO_CORE_FILES_H_

namespace firn {

// False where the system has no way to do that. On Linux nobody but root can then attach a debugger
// either, nor read the process's environment: PR_SET_DUMPABLE, which unlike a limit also goes for
// core files that are handed to a program.
bool ForbidCoreFiles();

}  // namespace firn

#endif  // FIRN_IO_CORE_FILES_H_
