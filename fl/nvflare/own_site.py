"""What the two components share: the party's own site, and the federation that it plays in.

What does not belong here: messages, tasks. A job names a federation; the site's own files say which ones may run here.
"""

import logging
import pkgutil
from typing import Any

from nvflare.apis.fl_context import FLContext

from fl.federation import Federation
from fl.network.site import FILE, Site, load_site
from fl.nvflare.compat import own_folder
from protocols.errors import Misuse, PolicyRefusal

LOG = logging.getLogger(__name__)


def own_site(context: FLContext, name: str, simulated: bool) -> Site:
    """Return this party's own files. name: what NVFlare calls it. Raises as `load_site` does."""
    return load_site(own_folder(context, simulated), 0, name, sync=not simulated)


def federation_of(place: str, site: Site, simulated: bool) -> Federation:
    """Return the federation at `place`, "package.module:name": a Federation, or a function of this party's Site.

    Raises PolicyRefusal for one that the site's own files do not name (a simulated site has none), Misuse for a place
    that holds no federation.
    """
    if not simulated and place not in site.federations:
        raise PolicyRefusal(
            f"federations: {FILE} of this site does not name {place!r}, it names {list(site.federations)}: read that "
            f'code, install it here, and add federations = ["{place}"]'
        )
    try:
        found: Any = pkgutil.resolve_name(place)
    except (
        Exception
    ) as error:  # of the user's module: its text may quote data, and a refusal leaves this site
        LOG.exception("%s", place)
        raise Misuse(
            f'expected a federation at "package.module:name", got {place!r}: {type(error).__name__}; this party\'s own '
            "log says why"
        ) from None
    made = found if isinstance(found, Federation) or not callable(found) else found(site)
    if not isinstance(made, Federation):
        raise Misuse(f"expected {place!r} to be a Federation or to return one, got {type(made).__name__}")
    made.setup.over_network()
    return made
