# Copyright: (c) 2026, Anchorage maintainers
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write or remove the DNS record of a challenge in the lab's name server."""

import json
import os
import sys
import urllib.request

body = {"host": f"_acme-challenge.{os.environ['CERTBOT_DOMAIN']}.", "value": os.environ["CERTBOT_VALIDATION"]}
urllib.request.urlopen(f"http://world:8055/{sys.argv[1]}-txt", data=json.dumps(body).encode(), timeout=10).read()
