/** The error codes of the OCI distribution specification ("Error Codes") that a registry for pulls can meet. */
export type ErrorCode =
  | 'BLOB_UNKNOWN'
  | 'DIGEST_INVALID'
  | 'MANIFEST_INVALID'
  | 'MANIFEST_UNKNOWN'
  | 'NAME_INVALID'
  | 'NAME_UNKNOWN'
  | 'DENIED'
  | 'UNSUPPORTED'
  | 'UNAVAILABLE';

/**
 * A failure that has an answer for the client. 401, 403 and 404 of an upstream all become 404, so that the
 * node's own credentials get their turn there; 429 and 5xx become 503, because containerd repeats a 429 at the
 * same host without a pause and goes on to the next host after a 503.
 */
export class RegistryError extends Error {
  readonly status: number;
  readonly code: ErrorCode;

  constructor(status: number, code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'RegistryError';
    this.status = status;
    this.code = code;
  }
}

/** The body of an error answer. */
export function errorBody(code: ErrorCode, message: string): string {
  return `${JSON.stringify({ errors: [{ code, message }] })}\n`;
}
