import { Cri } from '../cri.ts';

/** What a runtime says of itself over CRI. */
export interface CriAnswer {
  readonly name: string;
  readonly version: string;
  /** The `config_path` that the running process goes by; only containerd 1.x tells it. */
  readonly configPath?: string | undefined;
}

/**
 * Asks what listens at a node's socket.
 *
 * @throws Error when nothing there answers.
 */
export type AskCri = (place: { readonly root: string; readonly socket: string }) => Promise<CriAnswer>;

export const askCri: AskCri = async (place) => {
  const cri = await Cri.connect(place);
  try {
    return { ...(await cri.version()), configPath: await cri.configPath() };
  } finally {
    cri.close();
  }
};
