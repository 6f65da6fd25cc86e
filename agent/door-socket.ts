import { connect, type Socket } from 'node:net';
import { connect as connectSecurely } from 'node:tls';
import type { Address } from '../process/server.ts';
import { askedName, nameOf, type ReplicaTrust } from './door-trust.ts';

/** What becomes of a socket, in order. */
export interface SocketEvents {
  /** Bytes came, which are valid until the socket is resumed; until then it reads no more. */
  readonly piece: (bytes: Buffer) => void;
  /** Nothing comes any more. */
  readonly end: (error?: Error) => void;
}

/** Large reads are what makes forwarding cheap; memory that no read has reached yet is not taken. */
const BUFFER_BYTES = 512 * 1024;
const KEEP_ALIVE_PROBE_MS = 5_000;
/** Of TLS (RFC 8446, section 5.1). */
const RECORD_BYTES = 16 * 1024;
/**
 * What the system read at once (64 KB) is handed over to its end, also when the socket is to rest. There has to be room
 * for that and the rest of a record before.
 */
const RESERVE_BYTES = 128 * 1024;

/** A connection that is read piece by piece into one buffer. */
export function openSocket(replica: Address, trust: ReplicaTrust | undefined, events: SocketEvents): Socket {
  return trust === undefined ? openPlain(replica, events) : openSecure(replica, trust, events);
}

function openPlain(replica: Address, { piece, end }: SocketEvents): Socket {
  const buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  const socket = connect({
    ...optionsOf(replica),
    onread: {
      buffer,
      callback: (length) => {
        piece(buffer.subarray(0, length));
        return false;
      },
    },
  });
  socket.on('error', end);
  for (const event of ['end', 'close']) socket.on(event, () => end());
  return socket;
}

/** Records that come in one turn of the event loop make one piece, so that the client is given few large ones. */
function openSecure(replica: Address, trust: ReplicaTrust, { piece, end }: SocketEvents): Socket {
  const buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  const record = Buffer.allocUnsafeSlow(RECORD_BYTES);
  let filled = 0;
  const handOver = (): void => {
    if (filled === 0) return;
    const bytes = buffer.subarray(0, filled);
    filled = 0;
    socket.pause();
    piece(bytes);
  };
  const name = nameOf(replica.host, trust);
  const options = {
    ...optionsOf(replica),
    ...askedName(name),
    secureContext: trust.context,
    ALPNProtocols: ['http/1.1'],
    rejectUnauthorized: true,
    onread: {
      buffer: record,
      callback: (length: number): boolean => {
        if (filled === 0) setImmediate(handOver);
        if (record.copy(buffer, filled, 0, length) < length)
          socket.destroy(new Error('it sent more than there was to be room for'));
        filled += length;
        return buffer.length - filled >= RESERVE_BYTES;
      },
    },
  };
  const socket = connectSecurely(options);
  const finish = (error?: Error): void => {
    handOver();
    end(error);
  };
  socket.on('error', finish);
  for (const event of ['end', 'close']) socket.on(event, () => finish());
  return socket;
}

function optionsOf({ host, port }: Address) {
  // Keep-alive finds out, in time, about a peer that forgot the connection.
  return { host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_PROBE_MS };
}
