/** Why a runtime is not configured, before anything was changed, and what its administrator can do. */
export class Refusal extends Error {
  readonly remedy: string;
  /** `failed`: because it was tried before. */
  readonly kind: 'refused' | 'failed';

  constructor(reason: string, remedy: string, options?: ErrorOptions & { readonly kind?: 'failed' }) {
    super(reason, options);
    this.name = 'Refusal';
    this.remedy = remedy;
    this.kind = options?.kind ?? 'refused';
  }
}
