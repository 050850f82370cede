"""Who may do what, for every address and every role; and what browsers are kept from."""

from dataclasses import replace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from pgbreaker.core.plan import HttpPlan
from pgbreaker.web.doors import CSRF_FIELD, csrf_token, hash_token
from pgbreaker.web.doors.doorman import Doorman
from pgbreaker.web.doors.hosts import Hosts, host_of, is_loopback
from pgbreaker.web.doors.limits import DEFAULT
from pgbreaker.web.doors.present import Present
from pgbreaker.web.route import Role, Route
from pgbreaker.web.server import app_of, routes_of
from support.doors import BEYOND, basic, doors, raw, scrypt_of, write
from support.site import Served

LOOPBACK = ("127.0.0.1", 0)
NAMES = {"target": "main", "operation": "read"}


def every_route() -> list[Route]:
    return routes_of(Served("main").inside)


ROUTES = every_route()
IDS = [f"{route.method} {route.path}" for route in ROUTES]


def address(route: Route) -> str:
    """An address that the route's pattern takes, of things that are there if it can be."""
    path = route.path
    for name, value in NAMES.items():
        path = path.replace(f"{{{name}}}", value)
    while "{" in path:
        before, _, after = path.partition("{")
        path = before + "none" + after.partition("}")[2]
    return path


@pytest.fixture
def guarded(tmp_path):
    """A web configuration with a user of each role, and a token of each."""
    roles = {"viewer": "viewer", "operator": "operator", "admin": "admin"}
    return write(
        tmp_path / "web.yml",
        basic_auth_users={name: scrypt_of(name) for name in (*roles, "plain")},
        pgbreaker={
            "roles": roles | {f"{name}-robot": name for name in roles},
            "tokens": {f"{name}-robot": hash_token(name) for name in roles},
        },
    )


# -- Promise 15: routes x roles ---------------------------------------------------------


def test_every_address_says_who_may_use_it_and_changes_are_not_for_viewers():
    assert len(ROUTES) > 10
    for route in ROUTES:
        assert (route.changes or route.tells) is (route.method != "GET"), route
        assert not route.changes or route.role >= Role.OPERATOR, route


def test_what_is_open_to_everybody_is_this_and_no_more():
    open_ = {route.path for route in ROUTES if route.role is Role.NOBODY}

    assert open_ <= {"/-/healthy", "/-/ready", "/static/{edition}/{name}"}


async def sent(served, route: Route, **headers: str) -> int:
    """Send what the route takes; gives up on the body of a stream."""
    async with served.client.request(
        route.method, address(route), headers=headers, allow_redirects=False
    ) as answer:
        return answer.status


def expected(route: Route, role: Role) -> str:
    if role >= route.role:
        return "let in"
    return "401" if role is Role.NOBODY else "403"


def as_word(status: int) -> str:
    return str(status) if status in (401, 403, 429) else "let in"


@pytest.mark.parametrize("role", Role, ids=lambda role: role.name.lower())
@pytest.mark.parametrize("way", ["password", "token"])
async def test_each_role_uses_exactly_what_it_may(guarded, role, way):
    name = role.name.lower()
    by = {
        "password": basic(name),
        "token": {"Authorization": f"Bearer {name}"},
    }
    headers = {} if role is Role.NOBODY else by[way]
    async with doors(HttpPlan(listen=LOOPBACK, web_config=guarded)) as served:
        found, wanted = {}, {}
        for route, name in zip(ROUTES, IDS, strict=True):
            # Without a token, a form of the page goes no further; JSON does.
            body = {"Content-Type": "application/json"} if route.changes else {}
            found[name] = as_word(await sent(served, route, **headers, **body))
            wanted[name] = expected(route, role)

    assert found == wanted


async def test_without_a_web_configuration_this_machine_may_do_everything():
    async with doors() as served:
        found = {
            name: as_word(await sent(served, route))
            for route, name in zip(ROUTES, IDS, strict=True)
        }

    assert set(found.values()) == {"let in"}


async def test_beyond_this_machine_nothing_changes_without_logging_in():
    async with doors(HttpPlan(listen=BEYOND)) as served:
        found = {
            name: as_word(await sent(served, route))
            for route, name in zip(ROUTES, IDS, strict=True)
        }
        async with served.client.post("/-/reload") as answer:
            said = (await answer.json())["detail"]

    wanted = {
        name: expected(route, Role.VIEWER)
        for route, name in zip(ROUTES, IDS, strict=True)
    }
    assert found == wanted
    assert "http.web_config" in said


async def test_passwords_in_clear_beyond_this_machine_are_warned_of(guarded, caplog):
    async with doors(HttpPlan(listen=LOOPBACK, web_config=guarded)):
        assert caplog.messages == []
    async with doors(HttpPlan(listen=BEYOND, web_config=guarded)):
        pass

    (said,) = caplog.messages
    assert said == (
        "passwords come over the network as they are; tls_server_config in"
        f" {guarded} has connections encrypted"
    )


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "x-forwarded-proto", "X-Real-IP", "Forwarded", "Via"]
)
async def test_through_a_proxy_on_this_machine_anybody_may_come_so_nothing_changes(
    header,
):
    async with doors() as served:
        headers = {header: "192.0.2.7"}
        async with served.client.post("/-/reload", headers=headers) as answer:
            status = answer.status
        read, _ = await served.get("/api/v1/status", headers=headers)

    assert (status, read.status) == (403, 200)


async def test_an_address_that_there_is_not_is_not_told_from_others(guarded):
    async with doors(HttpPlan(listen=LOOPBACK, web_config=guarded)) as served:
        outside, _ = await served.get("/nowhere")
        inside, _ = await served.get("/nowhere", headers=basic("viewer"))
        async with served.client.delete("/api/v1/status") as answer:
            no_such_method = answer.status

    assert (outside.status, inside.status, no_such_method) == (401, 404, 401)


async def test_whoever_has_no_role_looks_and_is_told_where_roles_are_given(guarded):
    async with doors(HttpPlan(listen=LOOPBACK, web_config=guarded)) as served:
        read, _ = await served.get("/api/v1/status", headers=basic("plain"))
        async with served.client.post("/-/reload", headers=basic("plain")) as answer:
            body = await answer.json()

    assert (read.status, answer.status) == (200, 403)
    assert "WWW-Authenticate" not in answer.headers
    assert body["detail"] == (
        "plain is viewer, and this takes admin; pgbreaker.roles in the web"
        " configuration says who is what"
    )


async def test_who_did_not_log_in_is_asked_to(guarded):
    async with doors(HttpPlan(listen=LOOPBACK, web_config=guarded)) as served:
        answer, body = await served.get("/api/v1/status")

    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == (
        'Basic realm="pgbreaker", charset="UTF-8", Bearer realm="pgbreaker"'
    )
    assert answer.content_type == "application/problem+json"
    assert body["detail"] == "this takes viewer"


async def test_those_who_are_turned_away_are_counted(guarded):
    async with doors(HttpPlan(listen=LOOPBACK, web_config=guarded)) as served:
        for _ in range(3):
            await served.get("/api/v1/status")
        _, body = await served.get("/metrics", headers=basic("viewer"))

    assert "pgbreaker_http_refused_total 3\n" in body


async def test_anonymous_viewers_look_and_a_wrong_password_is_wrong_all_the_same(
    tmp_path,
):
    config = write(
        tmp_path / "web.yml",
        basic_auth_users={"ada": scrypt_of("ada")},
        pgbreaker={"roles": {"ada": "admin"}, "anonymous": "viewer"},
    )
    async with doors(HttpPlan(listen=LOOPBACK, web_config=config)) as served:
        looked, _ = await served.get("/api/v1/status")
        wrong, _ = await served.get("/api/v1/status", headers=basic("ada", "x"))
        async with served.client.post("/-/reload") as answer:
            changed = answer.status

    assert (looked.status, wrong.status, changed) == (200, 401, 401)


# -- Promise 16: browsers ---------------------------------------------------------------

SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "deny",
    "Server": "pgbreaker",
}
POLICY = ("default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'")
CHANGES = [route for route in ROUTES if route.changes]


async def test_every_answer_keeps_browsers_safe():
    async with doors() as served:
        for route, name in zip(ROUTES, IDS, strict=True):
            async with served.client.request(route.method, address(route)) as answer:
                headers = answer.headers
            assert {key: headers.get(key) for key in SAFE} == SAFE, name
            policy = headers["Content-Security-Policy"]
            for part in POLICY:
                assert part in policy, name
            assert "unsafe" not in policy, name
            assert "Set-Cookie" not in headers, name
            assert "Access-Control-Allow-Origin" not in headers, name


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        b"rubbish\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["not found", "misdirected", "no HTTP", "too long"],
)
async def test_every_refusal_does_too(request_):
    async with doors() as served:
        answer = await raw(served.port, request_)

    head = answer.partition(b"\r\n\r\n")[0].decode()
    for name, value in SAFE.items():
        assert f"\r\n{name}: {value}" in head
    assert "application/problem+json" in head


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "evil.example"}, 421),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
    ],
    ids=str,
)
async def test_no_page_of_another_site_changes_anything(headers, status):
    async with doors() as served:
        found = {route.path: await sent(served, route, **headers) for route in CHANGES}

    assert set(found.values()) == {status}, found


async def test_a_form_needs_the_token_of_a_page_of_ours():
    found, wanted = {}, {}
    async with doors() as served:
        for route in CHANGES:
            async with served.client.request(
                route.method, address(route), data={"csrf": "guessed"}
            ) as answer:
                body = await answer.json()
            found[route.path] = answer.status, "load the page anew" in body["detail"]
            wanted[route.path] = (403, True) if route.takes_forms else (415, False)

    assert found == wanted


def app(*routes: Route) -> web.Application:
    """An application of *routes* alone, with the doors before them."""
    clock = Served("main").inside.clock
    return app_of(Doorman(HttpPlan(), Present(None), DEFAULT, clock.now), list(routes))


async def test_a_form_of_our_page_is_taken_and_its_answer_leads_on():
    async def page(request: web.Request) -> web.Response:
        return web.Response(text=csrf_token(request))

    async def act(request: web.Request) -> web.Response:
        raise web.HTTPSeeOther(f"/{(await request.post())['state']}")

    routes = (
        Route("GET", "/page", Role.VIEWER, page),
        Route("POST", "/act", Role.OPERATOR, act, changes=True),
    )

    async def post(client: TestClient, **form: str) -> tuple[int, str | None]:
        async with client.post("/act", data=form, allow_redirects=False) as answer:
            assert answer.headers["X-Frame-Options"] == "deny"
            return answer.status, answer.headers.get("Location")

    async with TestClient(TestServer(app(*routes))) as client:
        async with client.get("/page") as answer:
            token = await answer.text()
        right = await post(client, state="open", **{CSRF_FIELD: token})
        without = await post(client, state="open")
        cut = await post(client, state="open", **{CSRF_FIELD: token[:-1]})
        empty = await post(client, state="open", **{CSRF_FIELD: ""})

    assert right == (303, "/open")
    assert without == cut == empty == (403, None)


async def test_the_token_of_somebody_else_is_none(guarded):
    async def page(request: web.Request) -> web.Response:
        return web.Response(text=csrf_token(request))

    routes = [
        Route("GET", "/page", Role.VIEWER, page),
        Route("POST", "/act", Role.OPERATOR, page, changes=True),
    ]
    now = Served("main").inside.clock.now
    doorman = Doorman(HttpPlan(), Present(guarded), DEFAULT, now)
    async with TestClient(TestServer(app_of(doorman, routes))) as client:
        async with client.get("/page", headers=basic("admin")) as answer:
            form = {CSRF_FIELD: await answer.text()}
        found = {}
        for name in ("admin", "operator"):
            async with client.post("/act", data=form, headers=basic(name)) as answer:
                found[name] = answer.status

    assert found == {"admin": 200, "operator": 403}


async def test_a_handler_behind_two_addresses_is_guarded_at_each_as_it_says():
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text="in")

    async def deny(_request: web.Request) -> web.Response:
        raise AssertionError("nobody was to come here")

    routes = (
        Route("GET", "/open/{name:[a-z]+}", Role.NOBODY, answer),
        Route("GET", "/shut/{name:[a-z]+}", Role.VIEWER, answer),
        Route("POST", "/shut/{name:[a-z]+}", Role.ADMIN, deny, changes=True),
    )
    application = app(*routes)
    found = {}
    async with TestClient(TestServer(application)) as client:
        proxied = {"Via": "1.1 proxy"}  # so a viewer at most
        for method in ("GET", "HEAD", "POST", "DELETE"):
            for path in ("/open/a", "/shut/a"):
                async with client.request(method, path, headers=proxied) as said:
                    found[f"{method} {path}"] = said.status

    assert found == {
        "GET /open/a": 200,
        "GET /shut/a": 200,
        "HEAD /open/a": 200,
        "HEAD /shut/a": 200,
        "POST /open/a": 405,
        "POST /shut/a": 403,
        "DELETE /open/a": 405,
        "DELETE /shut/a": 405,
    }


@pytest.mark.parametrize(
    ("kind", "body"),
    [("", b"csrf=\xa9"), ("; charset=none", b"csrf=x"), ("; charset=utf-16", b"c")],
)
async def test_a_form_that_cannot_be_read_is_nobodys_fault(kind, body, caplog):
    headers = {"Content-Type": f"application/x-www-form-urlencoded{kind}"}
    async with doors() as served:
        for route in (route for route in CHANGES if route.takes_forms):
            async with served.client.request(
                route.method, address(route), data=body, headers=headers
            ) as answer:
                assert answer.status == 400, route.path
    assert caplog.records == []


@pytest.mark.parametrize(
    ("listen", "allowed", "host", "is_answered"),
    [
        ("127.0.0.1", (), "127.0.0.1:9432", True),
        ("127.0.0.1", (), "localhost:9432", True),
        ("127.0.0.1", (), "LOCALHOST.", True),
        ("127.0.0.1", (), "db.localhost", True),
        ("127.0.0.1", (), "[::1]:9432", True),
        ("127.0.0.1", (), "192.0.2.7", True),
        ("127.0.0.1", (), None, True),
        ("127.0.0.1", (), "evil.example", False),
        ("127.0.0.1", (), "localhost.evil.example", False),
        ("127.0.0.1", (), "localhost@evil.example", False),
        ("127.0.0.1", (), "localhost:evil", False),
        ("127.0.0.1", (), "localhost/evil", False),
        ("127.0.0.1", (), "[::1]evil.example", False),
        ("127.0.0.1", (), "[::1].localhost", False),
        ("127.0.0.1", (), "[fe80::1%25eth0]:9432", True),
        ("127.0.0.1", (), "", False),
        ("127.0.0.1", ("Page.Corp",), "page.corp:443", True),
        ("::1", (), "evil.example", False),
        ("localhost", (), "evil.example", False),
        ("0.0.0.0", (), "pgbreaker.monitoring.svc:9432", True),
        ("0.0.0.0", ("page.corp",), "pgbreaker.monitoring.svc:9432", False),
        ("0.0.0.0", ("page.corp",), "page.corp", True),
        ("0.0.0.0", ("page.corp",), "10.0.0.5:9432", True),
    ],
)
def test_names_that_are_answered_to(listen, allowed, host, is_answered):
    assert Hosts(listen, allowed).answers_to(host) is is_answered


@pytest.mark.parametrize(
    ("origin", "host", "allowed", "is_right"),
    [
        ("http://localhost:9432", "localhost:9432", (), True),
        ("http://localhost:9999", "localhost:9432", (), False),
        ("https://page.corp", "127.0.0.1:9432", ("page.corp",), True),
        ("https://page.corp", "127.0.0.1:9432", (), False),
        ("https://page.corp.evil.example", "127.0.0.1", ("page.corp",), False),
        ("null", "localhost", (), False),
        ("rubbish", "localhost", (), False),
        ("http://[::1", "localhost", (), False),
        (None, "localhost", (), True),
    ],
)
def test_pages_whose_changes_are_taken(origin, host, allowed, is_right):
    hosts = Hosts("127.0.0.1", allowed)

    assert (hosts.wrong_with_origin(origin, None, host) is None) is is_right


def test_a_host_is_taken_apart():
    assert host_of("[2001:db8::1]:80") == "2001:db8::1"
    assert host_of("Example.ORG.") == "example.org"
    assert [host_of(bad) for bad in ("", ":80", "a b", "a/b", "a:b", "[::")] == [
        None
    ] * 6
    assert is_loopback("127.9.9.9")
    assert not is_loopback("example.org")


async def test_headers_of_the_file_go_before_ours(tmp_path):
    config = write(
        tmp_path / "web.yml",
        http_server_config={
            "http2": True,
            "headers": {"X-Frame-Options": "sameorigin", "X-XSS-Protection": ""},
        },
    )
    async with doors(HttpPlan(listen=LOOPBACK, web_config=config)) as served:
        answer, _ = await served.get("/metrics")

    assert answer.headers["X-Frame-Options"] == "sameorigin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "X-XSS-Protection" not in answer.headers


async def test_the_rate_of_the_file_is_kept_and_supervisors_are_not_held_up(tmp_path):
    config = write(tmp_path / "web.yml", rate_limit={"interval": "10s", "burst": 2})
    async with doors(HttpPlan(listen=LOOPBACK, web_config=config)) as served:
        statuses = [(await served.get("/api/v1/status"))[0].status for _ in range(2)]
        third, _ = await served.get("/api/v1/status")
        healthy, _ = await served.get("/-/healthy")
        served.scene.time.now += 10
        later, _ = await served.get("/api/v1/status")

    assert (statuses, third.status, healthy.status) == ([200, 200], 429, 200)
    assert third.headers["Retry-After"] == "10"
    assert later.status == 200


async def test_reports_have_a_pace_of_their_own():
    """Of a house with thousands of processes all may come by one address."""
    limits = replace(DEFAULT, reports=130)
    async with doors(limits=limits) as served:

        async def post(path: str) -> int:
            async with served.client.post(path) as answer:
                return answer.status

        reports = [await post("/api/v1/reports") for _ in range(140)]
        change = await post("/-/reload")
        served.scene.time.now += 1
        later = await post("/api/v1/reports")

    assert reports == [400] * 130 + [429] * 10  # nothing is no report
    assert (change, later) == (409, 400)


async def test_changes_have_a_pace():
    async with doors() as served:
        statuses = []
        for _ in range(125):
            async with served.client.post("/-/reload") as answer:
                statuses.append(answer.status)
        read, _ = await served.get("/api/v1/status")
        served.scene.time.now += 1
        async with served.client.post("/-/reload") as answer:
            later = answer.status

    assert statuses.count(429) == 5
    assert statuses[-1] == 429
    assert (read.status, later) == (200, 409)
