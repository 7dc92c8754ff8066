import { type ErrorCode, isFirnError } from '../../src/errors.js';

/** The code of the FirnError that `action` fails with; any other outcome fails the test. */
export async function codeOf(action: () => unknown): Promise<ErrorCode> {
  try {
    await action();
  } catch (error) {
    if (isFirnError(error)) return error.code;
    throw error;
  }
  throw new Error('it succeeded, but should have failed');
}
