"""Cases that mostly wait: first, so that the others run beside them."""
from common import case, end, event, holds, mail, message, same, send
from harness import free_ports


@case("policy", "after `expire` without success: failed as expired, with a notice to the sender", 110)
def expire(world):
    sink = world.sink()
    dead = free_ports(1)[0]
    engine = world.engine(f"""
        engine {{ hostname = "mail.shop.example", listen = "127.0.0.1:{{port}}", retry = {{ "5s" }} }}
        relay "dead" {{ host = "127.0.0.1", port = {dead}, tls = "none" }}
        relay "home" {{ host = "127.0.0.1", port = {sink.ports[0]}, tls = "none" }}
        route "home" {{ to = "shop.example", via = "home" }}
        route "all"  {{ to = "*", via = "dead", expire = "60s" }}
    """)
    send(engine, "u@a.example", message("u@a.example"), sender="maker@shop.example")
    row = event(engine, "expired", 90, rcpt="u@a.example")
    holds(row["delay_ms"] >= 55000 and row["attempts"] >= 2, f"too early: {row}")
    (index, content), = mail(world, 1)
    same((index["sender"], index["to"]), ("", ["maker@shop.example"]), "notice")
    holds(b"u@a.example" in content and b"Action: failed" in content, "the notice does not say who failed")
    engine.wait_empty()
    end(engine)
