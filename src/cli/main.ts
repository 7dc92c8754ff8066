#!/usr/bin/env node
/**
 * The `firn` executable. The exit code is set and the process ends by itself, so that output in a pipe is never cut off.
 */

import { runCommandLine } from './run.js';

process.exitCode = await runCommandLine(process.argv.slice(2), {
  stdout: process.stdout,
  stderr: process.stderr,
});
