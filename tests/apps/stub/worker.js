'use strict';
process.env.STUB_MODE = 'worker';
require('./server');
