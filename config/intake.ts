import type { ConfigVersion } from './version.ts';

/** What a program learns about its configuration while it runs. */
export interface ConfigEvents {
  /** A new configuration is in force, or the one in force can be read again. */
  changed(version: ConfigVersion): void;
  /** An edit was refused; the configuration before it stays in force. */
  refused(error: Error): void;
}

/** A configuration that is watched, wherever it is kept. */
export interface ConfigSource {
  /** The one in force. */
  readonly version: ConfigVersion;
  /** Why what is there now is not the configuration in force; `undefined` when it is. */
  readonly refusal: string | undefined;
  close(): Promise<void>;
}

/** Decides what an edit is worth: news, nothing new, or refused. */
export class ConfigIntake {
  readonly #events: ConfigEvents;
  #version: ConfigVersion | undefined;
  /** The last refusal, so that one slip is reported once. */
  #refused: string | undefined;

  /** Begins with the version that is in force, where there is one. */
  constructor(events: ConfigEvents, version?: ConfigVersion) {
    this.#events = events;
    this.#version = version;
  }

  get version(): ConfigVersion | undefined {
    return this.#version;
  }

  get refusal(): string | undefined {
    return this.#refused ?? (this.#version === undefined ? 'it was not read yet' : undefined);
  }

  take(version: ConfigVersion): void {
    const wasRefused = this.#refused !== undefined;
    this.#refused = undefined;
    // An edit that was refused and taken back is news too.
    if (version.hash === this.#version?.hash && !wasRefused) return;
    this.#version = version;
    this.#events.changed(version);
  }

  refuse(error: Error): void {
    if (this.#refused === error.message) return;
    this.#refused = error.message;
    this.#events.refused(error);
  }
}
