import { createServer, type Socket } from 'node:net';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { onTestFinished } from 'vitest';
import { temporaryFolder } from '../../helpers/folder.js';

type Send = (bytes: string | Uint8Array) => void;

/** A server on a Unix socket for the length of a test: what it does when somebody connects, and with each line. The socket's path. */
export async function serve(
  onConnect: (send: Send) => void,
  onLine: (line: string, send: Send) => void = () => undefined,
): Promise<string> {
  const socketPath = path.join(await temporaryFolder(), 'test.sock');
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.on('error', () => undefined);
    const send: Send = (bytes) => socket.write(bytes);
    onConnect(send);
    createInterface({ input: socket }).on('line', (line) => onLine(line, send));
  });
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  onTestFinished(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  return socketPath;
}
