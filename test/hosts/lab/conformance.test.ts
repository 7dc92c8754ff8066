/** The lab holds what every host must hold. */

import { describeHost } from '../../conformance/host.js';
import { labHostFixture } from './lab-fixture.js';

describeHost('the lab', labHostFixture);
