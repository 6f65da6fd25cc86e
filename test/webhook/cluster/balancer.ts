import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';

/** Gives each new connection to one of some ports in turn, as a Service does; those that there are stay. */
export class Balancer {
  /** Of this machine. */
  readonly ports: number[] = [];
  readonly port: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #turn = 0;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.port = port;
  }

  static async start(): Promise<Balancer> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('the server does not listen');
    const balancer = new Balancer(server, address.port);
    server.on('connection', (socket) => balancer.#join(socket));
    return balancer;
  }

  /** Sends nobody there any more. */
  leave(port: number): void {
    this.ports.splice(this.ports.indexOf(port), 1);
  }

  async close(): Promise<void> {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await once(this.#server, 'close');
  }

  #join(socket: Socket): void {
    const port = this.ports[this.#turn++ % this.ports.length];
    if (port === undefined) {
      socket.destroy();
      return;
    }
    const onward = connect(port, '127.0.0.1');
    for (const [one, other] of [
      [socket, onward],
      [onward, socket],
    ] as const) {
      this.#sockets.add(one);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        this.#sockets.delete(one);
        other.destroySoon();
      });
      one.pipe(other);
    }
  }
}
