/*
 * Runs a program on a terminal of its own: what is read here is typed there, what it shows is written here.
 *
 *   terminal PROGRAM ARGUMENT...
 *
 * Ends with a line of its own, "[exit N echo=E canonical=C signals=S]": the exit code (128 and more for signals), and what the terminal was left
 * as.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

int main(int count, char **arguments) {
  int master;
  if (count < 2) return 2;
  /* A descriptor of the other end keeps its settings when the program has gone. */
  int slave;
  if (openpty(&master, &slave, NULL, NULL, NULL) != 0) return 3;
  pid_t child = fork();
  if (child == 0) {
    close(master);
    if (login_tty(slave) != 0) _exit(126);
    execvp(arguments[1], arguments + 1);
    _exit(127);
  }
  int typing = 1, ended = 0, status = 0;
  for (;;) {
    struct pollfd files[2] = {{.fd = master, .events = POLLIN}, {.fd = typing ? 0 : -1, .events = POLLIN}};
    poll(files, 2, ended ? 0 : 50);
    char bytes[4096];
    if (files[0].revents & POLLIN) {
      ssize_t length = read(master, bytes, sizeof bytes);
      if (length > 0 && write(1, bytes, (size_t)length) != length) return 4;
      continue;
    }
    /* What it showed last may have come after the look at the terminal and before the one at the program. */
    if (ended) break;
    if (files[1].revents & (POLLIN | POLLHUP)) {
      ssize_t length = read(0, bytes, sizeof bytes);
      if (length <= 0) typing = 0;
      else if (write(master, bytes, (size_t)length) != length) return 5;
    }
    ended = waitpid(child, &status, WNOHANG) == child;
  }
  struct termios left;
  if (tcgetattr(slave, &left) != 0) return 6;
  printf("[exit %d echo=%d canonical=%d signals=%d]\n",
         WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), (left.c_lflag & ECHO) != 0,
         (left.c_lflag & ICANON) != 0, (left.c_lflag & ISIG) != 0);
  return 0;
}
