"""moto's server, which answers in two thirds of the time.

With each request, moto lists its own directory to find the service, and inspects the service's
class to find the action. Neither changes while the server runs.
"""

from functools import cache

from moto.core import responses
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import main

DomainDispatcherApplication.get_backend_for_host = cache(
    DomainDispatcherApplication.get_backend_for_host
)
responses.method_names_from_class = cache(responses.method_names_from_class)

if __name__ == "__main__":
    main()
