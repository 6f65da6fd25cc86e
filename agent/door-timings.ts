/** How long the door waits for what, in milliseconds. */
export interface DoorTimings {
  /** Until a connection to a replica stands: the Pod network is near. */
  readonly connect: number;
  /** For TLS on top of that, and of what is left of it: the replica itself has to answer, and may be busy with a crowd. */
  readonly handshake: number;
  /** Without a byte from a replica that owes one, until it is asked for a sign of life. */
  readonly silence: number;
  /** For the sign of life. */
  readonly look: number;
  /** Until a replica that is silent but alive is asked for the next one. */
  readonly lookAgain: number;
  /** Until a replica that was put aside is asked whether it is back. */
  readonly retry: number;
  /** For which a client may take no byte of an answer that is there for it. */
  readonly client: number;
  /** For which a connection to a replica is kept unused; less than the registry keeps it. */
  readonly idle: number;
}

/**
 * A replica that hangs or drops packets costs the pull that meets it silence + look, or connect + handshake, and
 * another look at the other replicas: less than a second.
 */
export const DOOR_TIMINGS: DoorTimings = {
  connect: 300,
  handshake: 250,
  silence: 250,
  look: 300,
  lookAgain: 650,
  retry: 1_000,
  client: 120_000,
  idle: 30_000,
};

/**
 * Calls once the time is over and what had arrived by then was read: when the process itself is late, its timers
 * come before its sockets, and an answer that is there would count as missing.
 *
 * @returns a function that takes it back.
 */
export function later(milliseconds: number, call: () => void): () => void {
  let turn: NodeJS.Immediate | undefined;
  const timer = setTimeout(() => {
    turn = setImmediate(call);
  }, milliseconds);
  return () => {
    clearTimeout(timer);
    if (turn !== undefined) clearImmediate(turn);
  };
}
