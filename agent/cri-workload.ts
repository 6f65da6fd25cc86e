import { type CallOptions, Cri, type CriPlace } from './cri.ts';
import type { RuntimeStatus } from './cri-answers.ts';

/** How a runtime is, and what runs on it. */
export interface Workload extends RuntimeStatus {
  /** Containers that run, and sandboxes of Pods that are ready, by their identities. */
  readonly running: readonly string[];
}

/** Asks a runtime over CRI. @throws CriError when it does not answer in time. */
export async function askWorkload(place: CriPlace, options: CallOptions): Promise<Workload> {
  const cri = await Cri.connect(place);
  try {
    return { ...(await cri.status(options)), running: await cri.running(options) };
  } finally {
    cri.close();
  }
}
