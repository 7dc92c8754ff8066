// Stands in for DiskShadow: hands each command of its standard input to the test's process and prints what that answers, before it takes the next
// one. When it ends, by a command, by the end of its input or by a signal, its connection ends too, and with that what it held.

import { createConnection } from 'node:net';
import { createInterface } from 'node:readline';

const socket = createConnection({ port: Number(process.env.FIRN_STANDIN_PORT), host: '127.0.0.1' });
socket.setEncoding('utf8');
socket.on('close', () => process.exit(0));
socket.on('error', () => process.exit(1));
socket.write('diskshadow\n');

let answered = () => {};
socket.on('data', (text) => {
  process.stdout.write(text.replaceAll('\0', ''), () => {
    // A zero byte ends an answer.
    if (text.includes('\0')) answered();
  });
});
for await (const command of createInterface({ input: process.stdin })) {
  const answer = new Promise((resolve) => {
    answered = resolve;
  });
  socket.write(`${command}\n`);
  await answer;
}
socket.end('eof\n');
