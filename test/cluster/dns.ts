// As much of DNS as a cluster's clients ask for: addresses, over UDP (RFC 1035).

import { createSocket } from 'node:dgram';

const PORT = 53;
const HEADER_BYTES = 12;
const TYPE_A = 1;
const CLASS_IN = 1;
const TTL_SECONDS = 1;
const RESPONSE = 0x8000;
const RECURSION_DESIRED = 0x0100;
const RECURSION_AVAILABLE = 0x0080;
const NAME_ERROR = 3;
const SERVER_FAILURE = 2;
/** A pointer to the name at the end of the header: the question's. */
const NAME_OF_QUESTION = 0xc000 | HEADER_BYTES;
const FORWARD_TIMEOUT_MS = 2000;

/** Answers each query at this address, for as long as the process lives; what fails is a server failure. */
export function serveDns(address: string, answer: (query: Buffer) => Promise<Buffer>): void {
  const socket = createSocket('udp4');
  socket.on('message', (query, from) => {
    if (questionOf(query) === undefined) return;
    answer(query)
      .catch((error: unknown) => {
        console.error(error);
        return replyTo(query, SERVER_FAILURE, []);
      })
      .then((reply) => socket.send(reply, from.port, from.address))
      .catch(console.error);
  });
  socket.bind(PORT, address);
}

/** Looks the name up, in lower case and without its last dot: undefined when there is no such name. */
export function answerFrom(query: Buffer, lookUp: (name: string) => readonly string[] | undefined): Buffer {
  const question = questionOf(query);
  const addresses = question && lookUp(question.name);
  if (addresses === undefined) return replyTo(query, NAME_ERROR, []);
  return replyTo(query, 0, question?.type === TYPE_A ? addresses : []);
}

/** The name that the query is about, in lower case and without its last dot. */
export function nameIn(query: Buffer): string {
  return questionOf(query)?.name ?? '';
}

/** The answer that another resolver gives. */
export async function forward(query: Buffer, resolver: string): Promise<Buffer> {
  const socket = createSocket('udp4');
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const late = setTimeout(() => reject(new Error(`${resolver} does not answer`)), FORWARD_TIMEOUT_MS);
  socket.once('message', resolve).once('error', reject);
  socket.send(query, PORT, resolver);
  try {
    return await promise;
  } finally {
    clearTimeout(late);
    socket.close();
  }
}

function replyTo(query: Buffer, code: number, addresses: readonly string[]): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(query.readUInt16BE(0), 0);
  header.writeUInt16BE(
    RESPONSE | (query.readUInt16BE(2) & RECURSION_DESIRED) | RECURSION_AVAILABLE | code,
    2,
  );
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(addresses.length, 6);
  const question = query.subarray(HEADER_BYTES, questionOf(query)?.end);
  return Buffer.concat([header, question, ...addresses.map(addressRecord)]);
}

function addressRecord(address: string): Buffer {
  const record = Buffer.alloc(16);
  record.writeUInt16BE(NAME_OF_QUESTION, 0);
  record.writeUInt16BE(TYPE_A, 2);
  record.writeUInt16BE(CLASS_IN, 4);
  record.writeUInt32BE(TTL_SECONDS, 6);
  record.writeUInt16BE(4, 10);
  record.set(address.split('.').map(Number), 12);
  return record;
}

/** The one question of a query; `end` is where it ends. Undefined when it is not a query with one question. */
function questionOf(query: Buffer): { name: string; type: number; end: number } | undefined {
  if (query.length < HEADER_BYTES || query.readUInt16BE(4) !== 1) return undefined;
  const labels: string[] = [];
  let at = HEADER_BYTES;
  for (;;) {
    const length = query[at];
    if (length === undefined || length > 63 || at + 1 + length + 4 > query.length) return undefined;
    at += 1;
    if (length === 0) break;
    labels.push(query.toString('latin1', at, at + length).toLowerCase());
    at += length;
  }
  return { name: labels.join('.'), type: query.readUInt16BE(at), end: at + 4 };
}
