/**
 * `door-process.ts HOST:PORT [CA NAME]`: the door of a node's agent, with one replica, over TLS where the file of an authority
 * is given. A line says where it listens.
 */
import process from 'node:process';
import { pino } from 'pino';
import { Door } from '../agent/door.ts';
import { Authorities } from '../process/authorities.ts';
import { createMetrics } from '../process/metrics.ts';
import { parseAddress } from '../process/server.ts';

const [replica = '', ca, serverName = ''] = process.argv.slice(2);
const log = pino({ level: 'warn' });
const authorities = ca === undefined ? undefined : await Authorities.open(ca, log);
const trust = authorities && (() => ({ context: authorities.context, serverName }));
const address = { host: '127.0.0.1', port: 0 };
const door = await Door.open({ address, metrics: createMetrics(), log, trust });
door.setReplicas([parseAddress(replica)]);
process.stdout.write(`${door.url}\n`);
