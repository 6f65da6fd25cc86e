import { KubeConfig, type RequestContext } from '@kubernetes/client-node';

type Dispatcher = NonNullable<ReturnType<RequestContext['getDispatcher']>>;
type Compose = Parameters<Dispatcher['compose']>[0];
type Interceptor = Extract<Compose, (...parameters: never[]) => unknown>;
type Options = ReturnType<KubeConfig['createDispatcherOptions']>;
type Handler = Parameters<Dispatcher['dispatch']>[1];

const NONE: Options = { type: 'none' };
/** Requests and watches have time limits of their own; those of the dispatcher would look at a clock twice a second, all the time. */
const NO_TIMEOUTS = { headersTimeout: 0, bodyTimeout: 0 };

/** Longer than from having a connection in hand to asking something by it. */
const RETIRE_MS = 5_000;

/**
 * Has all requests of a program, watches included, share one connection where the API server speaks HTTP/2. By
 * itself the client connects anew for each request, which costs the API server more than most of the answers do.
 *
 * A request that fails, or that nobody waited for any longer, may have gone to a connection that is dead and says
 * nothing: the requests after it have another one, and it is closed once nothing is under way on it. An API server
 * that is too busy to answer would else collect connections of all who ask again.
 */
export class OneConnection extends KubeConfig {
  readonly #retireMs: number;
  #shared: Dispatcher | undefined;

  constructor(retireMs = RETIRE_MS) {
    super();
    this.#retireMs = retireMs;
  }

  /** Which also reads the files of the service account again. */
  override async applySecurityAuthentication(context: RequestContext): Promise<void> {
    const before = this.#shared;
    await super.applySecurityAuthentication(context);
    // Of two requests at once, the first that comes here makes it for both.
    this.#shared ??= this.#watched(context.getDispatcher());
    const shared = this.#shared ?? before;
    if (shared !== undefined) context.setDispatcher(shared);
  }

  /** One more dispatcher for each request is not made while there is one that they share. */
  override createDispatcherOptions(...given: Parameters<KubeConfig['createDispatcherOptions']>) {
    return this.#shared === undefined ? super.createDispatcherOptions(...given) : NONE;
  }

  #watched(dispatcher: Dispatcher | undefined): Dispatcher | undefined {
    const forget = (): void => {
      if (this.#shared !== shared) return;
      this.#shared = undefined;
      // Whoever has it in hand may still begin something with it.
      setTimeout(() => void dispatcher?.close(), this.#retireMs).unref();
    };
    const interceptor: Interceptor = (dispatch) => (options, handler) =>
      dispatch({ ...options, ...NO_TIMEOUTS }, withFailure(handler, forget));
    const shared = dispatcher?.compose(interceptor);
    return shared;
  }
}

/** The handler, and word of a failure before it hears of it. */
function withFailure(handler: Handler, failed: () => void): Handler {
  return {
    onRequestStart: (...given) => handler.onRequestStart?.(...given),
    onRequestUpgrade: (...given) => handler.onRequestUpgrade?.(...given),
    onResponseStart: (...given) => handler.onResponseStart?.(...given),
    onResponseData: (...given) => handler.onResponseData?.(...given),
    onResponseEnd: (...given) => handler.onResponseEnd?.(...given),
    onResponseError: (...given) => {
      failed();
      handler.onResponseError?.(...given);
    },
  };
}
