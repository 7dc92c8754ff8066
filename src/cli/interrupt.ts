/**
 * Ctrl-C: once cancels the work and lets it end in order (exit 130), twice ends the process at once.
 *
 * The second time the process is ended by the signal itself, as though it had never been caught: leaving through process.exit would
 * wait for native threads, and whoever presses twice does not want to wait. What is sealed is whole either way; the repository is made
 * so that a process may die at any moment.
 */

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export interface Interrupt {
  signal: AbortSignal;
  /** Gives the signals back their usual meaning. */
  dispose(): void;
}

/** `onFirst` is told of the first interruption, to say that the work is being ended. */
export function catchInterrupts(onFirst: (signal: NodeJS.Signals) => void): Interrupt {
  const controller = new AbortController();
  const dispose = () => {
    for (const name of SIGNALS) process.off(name, onSignal);
  };
  const onSignal = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) {
      dispose();
      process.kill(process.pid, name);
      return;
    }
    controller.abort(new Error(`Interrupted by ${name}`));
    onFirst(name);
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  return { signal: controller.signal, dispose };
}
