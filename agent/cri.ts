import { Client, credentials, type ServiceError, status } from '@grpc/grpc-js';
import {
  type CriImage,
  type RuntimeStatus,
  type RuntimeVersion,
  readImages,
  readPulled,
  readReady,
  readRunning,
  readStatus,
  readVersion,
} from './cri-answers.ts';
import { criMethod, type Method } from './cri-messages.ts';
import { resolveOnNode } from './node-root.ts';

export interface CallOptions {
  /** In milliseconds; a call that has not ended by then is cancelled in the runtime too. */
  readonly timeout: number;
  readonly signal?: AbortSignal | undefined;
}

export interface CriPlace {
  /** Where the node's file system is mounted; without it, it is this machine's own. */
  readonly root?: string;
  /** The runtime's socket as the node knows it (`/run/containerd/containerd.sock`). */
  readonly socket: string;
}

/** A call that CRI did not answer as it was to. */
export class CriError extends Error {
  /**
   * - `unreachable`: no runtime answers at the socket
   * - `unsupported`: somebody answers, and does not know CRI v1
   * - `timeout`: there was no answer in time
   * - `failed`: the runtime says that it failed; the message is its own
   */
  readonly kind: 'unreachable' | 'unsupported' | 'timeout' | 'failed';

  constructor(kind: CriError['kind'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'CriError';
    this.kind = kind;
  }
}

const SHORT_MS = 5_000;
/** As many bytes as the kubelet takes in one message: a node may have very many images. */
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

/** The node's container runtime, asked as the kubelet asks it: over the container runtime interface, version 1. */
export class Cri {
  readonly #client: Client;
  readonly #socket: string;

  constructor(client: Client, socket: string) {
    this.#client = client;
    this.#socket = socket;
  }

  /** Nothing is asked yet. @throws Error when the way to the socket cannot be followed. */
  static async connect({ root = '/', socket }: CriPlace): Promise<Cri> {
    const path = await resolveOnNode(root, socket);
    const options = {
      // Else a runtime that was away is not tried again for up to two minutes.
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_retries': 0,
      'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
      // A proxy of the environment is none for a socket.
      'grpc.enable_http_proxy': 0,
    };
    return new Cri(new Client(`unix://${path}`, credentials.createInsecure(), options), socket);
  }

  async version(options: CallOptions = { timeout: SHORT_MS }): Promise<RuntimeVersion> {
    return readVersion(await this.#call(criMethod('RuntimeService', 'Version'), {}, options));
  }

  async status(options: CallOptions = { timeout: SHORT_MS }): Promise<RuntimeStatus> {
    return readStatus(await this.#call(criMethod('RuntimeService', 'Status'), { verbose: true }, options));
  }

  /** The `config_path` by which the running runtime goes; `undefined` when it does not say. */
  async configPath(options: CallOptions = { timeout: SHORT_MS }): Promise<string | undefined> {
    return (await this.status(options)).configPath;
  }

  /** Containers that run, and sandboxes of Pods that are ready, by their identities. */
  async running(options: CallOptions = { timeout: SHORT_MS }): Promise<readonly string[]> {
    return [
      ...readRunning(await this.#call(criMethod('RuntimeService', 'ListContainers'), {}, options)),
      ...readReady(await this.#call(criMethod('RuntimeService', 'ListPodSandbox'), {}, options)),
    ];
  }

  async images(options: CallOptions = { timeout: SHORT_MS }): Promise<readonly CriImage[]> {
    return readImages(await this.#call(criMethod('ImageService', 'ListImages'), {}, options));
  }

  /** @returns the image's identity: with containerd the digest of its configuration, else a reference by digest. */
  async pull(reference: string, options: CallOptions): Promise<string> {
    const request = { image: { image: reference } };
    return readPulled(await this.#call(criMethod('ImageService', 'PullImage'), request, options));
  }

  /** Removes an image under all its references; harmless when it is not there. */
  async remove(reference: string, options: CallOptions = { timeout: SHORT_MS }): Promise<void> {
    await this.#call(criMethod('ImageService', 'RemoveImage'), { image: { image: reference } }, options);
  }

  close(): void {
    this.#client.close();
  }

  /** @throws CriError */
  async #call(method: Method, request: object, options: CallOptions): Promise<unknown> {
    try {
      return await this.#send(method, request, options);
    } catch (error) {
      options.signal?.throwIfAborted();
      if (!isServiceError(error)) throw error;
      if (error.code !== status.UNIMPLEMENTED) throw this.#problem(error, options);
      throw await this.#unsupported(method, error);
    }
  }

  #send({ path, write, read }: Method, request: object, { timeout, signal }: CallOptions): Promise<unknown> {
    signal?.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const deadline = Date.now() + timeout;
    const call = this.#client.makeUnaryRequest(path, write, read, request, { deadline }, (error, answer) => {
      signal?.removeEventListener('abort', cancel);
      if (error === null) resolve(answer);
      else reject(error);
    });
    const cancel = (): void => call.cancel();
    signal?.addEventListener('abort', cancel, { once: true });
    return promise;
  }

  #problem(cause: ServiceError, { timeout }: CallOptions): CriError {
    const { code, details } = cause;
    // Said by this end; what the other end says of its own deadline tells more.
    if (/^(?:Deadline exceeded|Call cancelled)/.test(details))
      return new CriError('timeout', `no answer at ${this.#socket} within ${timeout / 1000} s`, { cause });
    if (code !== status.UNAVAILABLE && !isNoGrpc(details)) return new CriError('failed', details, { cause });
    return new CriError('unreachable', unreachable(this.#socket, details), { cause });
  }

  async #unsupported({ path, read }: Method, cause: ServiceError): Promise<CriError> {
    const old = { path: '/runtime.v1alpha2.RuntimeService/Version', write: WRITE_NOTHING, read };
    const isOld = await this.#send(old, {}, { timeout: SHORT_MS }).then(
      () => true,
      () => false,
    );
    const what = isOld
      ? 'speaks CRI v1alpha2 only. Upgrade the runtime: containerd 1.6 or newer speaks v1'
      : `does not speak CRI (${path.split('/')[1]} is unknown). Is its CRI plugin disabled, or did it fail to load? The runtime's log says why`;
    return new CriError('unsupported', `the runtime at ${this.#socket} ${what}.`, { cause });
  }
}

const WRITE_NOTHING = (): Buffer => Buffer.alloc(0);

/** What gRPC says of a peer that answers something else, such as Docker's API. */
function isNoGrpc(details: string): boolean {
  return /^(?:Received HTTP status code|missing content-type|invalid content-type)/i.test(details);
}

function unreachable(socket: string, details: string): string {
  const [, code] = /\b(ENOENT|ENOTSOCK|ECONNREFUSED|EACCES|EPERM)\b/.exec(details) ?? [];
  const reasons: Readonly<Record<string, string>> = {
    ENOENT: 'there is no such socket',
    ENOTSOCK: 'it is no socket',
    ECONNREFUSED: 'nothing listens there',
    EACCES: 'the agent may not use it',
    EPERM: 'the agent may not use it',
  };
  return `no container runtime answers at ${socket}: ${reasons[code ?? ''] ?? details}`;
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && 'code' in error && 'details' in error && 'metadata' in error;
}
