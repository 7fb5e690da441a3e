# SPDX-License-Identifier: Apache-2.0
"""codespell over all that people wrote."""
import subprocess

from house import ROOT, files, finish, is_text, name, need

# Words of the project and of others that codespell takes for slips.
FINE = "fo,hda,ot,te,nd,ist,ser,parms,tha,iif,ans,crate,inout,thead,fpr,ba,ue,alse,iff,whats,tthe"
# Tests make slips of the pen on purpose.
EXEMPT = ("LICENSE", "tests/")


def main():
    tool = need("codespell")
    paths = [p for p in files() if not name(p).startswith(EXEMPT) and is_text(p)]
    done = subprocess.run([tool, "-L", FINE, *paths], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    finish([line.replace(f"{ROOT}/", "") for line in done.stdout.splitlines()], len(paths))


main()
