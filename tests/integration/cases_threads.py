"""Several workers, many connections, operators at the same time: run under TSan, too."""
import json
import threading

from cases_bulk import drain
from common import case, end, rewrite, same, shown

POLICY = """
engine { hostname = "mail.shop.example", listen = "127.0.0.1:{port}", retry = { "1s" }, workers = 3 }
for i = 1, 4 do relay("r" .. i) { host = "127.0.0.1", port = PORT0, user = "u" .. i, password = secret "p", auth = "plain", tls = "none", connections = 4 } end
relay "other" { host = "127.0.0.1", port = PORT1, tls = "none", cap = "10000/min" }
route "a" { to = "a.example", via = { "r1", "other" } }
route "b" { to = "b.example", via = { "r2", "other" } }
route "c" { to = "c.example", via = { "r3", "other" } }
route "d" { to = "*", when = function(r) return r.domain ~= "x.example" end, via = function(r) return r:hash "s" < 0.5 and "r4" or "other" end }
"""


@case("threads", "three workers, twenty clients, faults; queue list, status and reload all the while", 200)
def threads(world):
    sink = world.sink(ports=2, rules=["* dot 5% 451 4.3.0 busy", "* mail 1% close", "* rcpt 1% close", "* dot 0.5% close"], extra=["--auth"])
    policy = POLICY.replace("PORT0", str(sink.ports[0])).replace("PORT1", str(sink.ports[1]))
    engine = world.engine(policy, env={"HIKYAKU_SECRET_P": "word"})
    stop, trouble = threading.Event(), []

    def operate():
        n = 0
        while not stop.wait(0.05):
            try:
                n += 1
                engine.status()
                engine.queue("--where", "r.domain == 'a.example'")
                world.run("relay", "list", "--spool", engine.spool)
                if n % 3 == 0:
                    rewrite(engine, policy + f"-- {n}\n")
                    world.run("reload", "--spool", engine.spool)
            except Exception as e:
                trouble.append(e)
                return
    operator = threading.Thread(target=operate)
    operator.start()
    _, out, _ = world.run("load", "--json", "--server", f"127.0.0.1:{engine.port}", "-n", 600, "-c", 20, "--domains",
                          "a.example,b.example,c.example,d.example", timeout=120)
    load = json.loads(out)
    drain(world, engine, 90)
    stop.set()
    operator.join(60)
    same(trouble, [], "an operator's command failed")
    same(load["acked"], 600, "acknowledged")
    came = {row["load"] for row in world.received()}
    same(sorted(i for i in range(600) if f"{load['run']}-{i}" not in came), [], "lost")
    same(shown(world, "status", "--spool", engine.spool)["since_start"]["delivered"], 600, "delivered")
    end(engine)
