/** `npm run chart:docs`: writes the chart's README. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CHART, renderReadme } from './helm.ts';

await writeFile(join(CHART, 'README.md'), await renderReadme());
