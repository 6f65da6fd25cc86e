import { basename, join } from 'node:path';
import { build, type Metafile, type Plugin } from 'esbuild';

/** A file of the bundle; all of them are in one directory. */
export interface BundledFile {
  readonly name: string;
  readonly content: Uint8Array;
}

export interface Bundle {
  readonly files: readonly BundledFile[];
  /** What the sources of bundled packages say about their licence in comments that are to be kept. */
  readonly legalComments: readonly string[];
  /** Directories of the packages that went into it, as in `node_modules/zod`. */
  readonly packages: readonly string[];
}

/** Packages written as CommonJS ask for Node's own modules by `require`, which a module has to make for itself. */
const REQUIRE =
  "import { createRequire as createRequireForBundle } from 'node:module'; const require = createRequireForBundle(import.meta.url);";
/** An uncaught error shows the line it came from: not a megabyte of it. */
const LINE_LIMIT = 160;
const LEGAL_COMMENTS = '.LEGAL.txt';

/**
 * The command as JavaScript for Node 24: `main.js`, the worker thread of `registry/hash-pool.ts` beside it, and
 * a chunk for what each subcommand loads. Only blanks and syntax are shortened, so that a stack trace keeps its
 * names without source maps.
 *
 * @throws Error when an import leads nowhere.
 */
export async function bundle(root: string): Promise<Bundle> {
  const { outputFiles, metafile } = await build({
    absWorkingDir: root,
    entryPoints: ['cli/main.ts', 'registry/hash-worker.ts'],
    outdir: 'dist',
    entryNames: '[name]',
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    // A package's modules before its CommonJS: what is not used of them is left out.
    mainFields: ['module', 'main'],
    banner: { js: REQUIRE },
    plugins: [BY_REQUIRE, treeShaken(/[\\/]node_modules[\\/]@kubernetes[\\/]client-node[\\/]/)],
    minifySyntax: true,
    minifyWhitespace: true,
    lineLimit: LINE_LIMIT,
    legalComments: 'external',
    metafile: true,
    write: false,
    logLevel: 'warning',
  });
  const files = outputFiles.map(({ path, contents }) => ({ name: basename(path), content: contents }));
  return {
    files: files.filter(({ name }) => !name.endsWith(LEGAL_COMMENTS)),
    legalComments: files
      .filter(({ name }) => name.endsWith(LEGAL_COMMENTS))
      .map(({ content }) => Buffer.from(content).toString('utf8').trim()),
    packages: packagesOf(metafile).map((directory) => join(root, directory)),
  };
}

/**
 * Who imports Node's `http` as a module has Node load all of its `fetch`, which is 12 MB of memory for nothing, and with `tls` the
 * certificates of all the world's authorities, which is one: among what they export are getters that do so, and a
 * module's exports are read when it is made. `require` reads none.
 */
const BY_REQUIRE: Plugin = {
  name: 'by-require',
  setup(builder) {
    const namespace = 'by-require';
    builder.onResolve({ filter: /^(?:node:)?(?:http|tls)$/ }, ({ kind, path }) =>
      kind === 'require-call' ? undefined : { path: path.replace(/^(?:node:)?/, 'node:'), namespace },
    );
    builder.onLoad({ filter: /^/, namespace }, ({ path }) => ({
      contents: `module.exports = require(${JSON.stringify(path)})`,
    }));
  },
};

/**
 * Leaves out whatever is not used of a package whose modules do nothing but define, which its manifest does not say:
 * of the Kubernetes client, a class for each kind of object and each part of the API, which would be most of the bundle.
 */
function treeShaken(modules: RegExp): Plugin {
  const resolving = Symbol('resolving');
  return {
    name: 'tree-shaken',
    setup(builder) {
      builder.onResolve({ filter: /^@kubernetes\/client-node$|^\.\.?\// }, async (asked) => {
        const { path, kind, importer, resolveDir } = asked;
        // Asked by ourselves, below.
        if (asked.pluginData === resolving) return undefined;
        if (path.startsWith('.') && !modules.test(importer)) return undefined;
        const found = await builder.resolve(path, { kind, importer, resolveDir, pluginData: resolving });
        return { ...found, sideEffects: false };
      });
    },
  };
}

function packagesOf(metafile: Metafile): string[] {
  const inputs = Object.values(metafile.outputs).flatMap((output) => Object.keys(output.inputs));
  const directories = inputs.flatMap((file) => /^.*\bnode_modules\/(?:@[^/]+\/)?[^/]+/.exec(file) ?? []);
  return [...new Set(directories)].toSorted();
}
