import { get } from 'node:https';
import { text } from 'node:stream/consumers';
import { TLSSocket } from 'node:tls';

export interface Secured {
  readonly status: number;
  readonly body: string;
  /** Of the certificate that the server showed. */
  readonly serialNumber: string;
  readonly protocol: string | null;
  readonly alpn: string;
}

/** Asks over a connection of its own. @throws Error when the server's certificate is not of that authority and for that name. */
export async function getSecurely(
  url: string,
  options: { readonly ca: string; readonly servername: string },
): Promise<Secured> {
  const { promise, resolve, reject } = Promise.withResolvers<Secured>();
  const asked = { ...options, agent: false as const, ALPNProtocols: ['h2', 'http/1.1'] };
  const request = get(url, asked, (response) => {
    const { socket, statusCode: status = 0 } = response;
    if (!(socket instanceof TLSSocket)) throw new Error('there is no TLS');
    const { serialNumber } = socket.getPeerCertificate();
    const [protocol, alpn] = [socket.getProtocol(), String(socket.alpnProtocol)];
    text(response).then((body) => resolve({ status, body, serialNumber, protocol, alpn }), reject);
  });
  request.on('error', reject);
  return await promise;
}
