/** `door-process.ts HOST:PORT`: the door of a node's agent, with one replica. A line says where it listens. */
import process from 'node:process';
import { pino } from 'pino';
import { Door } from '../agent/door.ts';
import { createMetrics } from '../process/metrics.ts';
import { parseAddress } from '../process/server.ts';

const log = pino({ level: 'warn' });
const door = await Door.open({ address: { host: '127.0.0.1', port: 0 }, metrics: createMetrics(), log });
door.setReplicas([parseAddress(process.argv[2] ?? '')]);
process.stdout.write(`${door.url}\n`);
