// Stands in for DiskShadow: hands each command of its standard input to the test's process and prints what that answers. When it ends, by a
// command, by the end of its input or by a signal, its connection ends too, and with that what it held.

import { createConnection } from 'node:net';

const socket = createConnection({ port: Number(process.env.FIRN_STANDIN_PORT), host: '127.0.0.1' });
socket.setEncoding('utf8');
socket.write('diskshadow\n');
process.stdin.setEncoding('utf8');
process.stdin.pipe(socket, { end: false });
process.stdin.on('end', () => socket.end('eof\n'));
socket.pipe(process.stdout);
socket.on('close', () => process.exit(0));
socket.on('error', () => process.exit(1));
