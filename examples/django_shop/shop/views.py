"""The views of the shop: plain functions, which any number of threads may run."""

from __future__ import annotations

import json
from dataclasses import asdict

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST

import haptera
from shop import store


@csrf_exempt
@require_POST
def orders(request: HttpRequest) -> HttpResponse:
    """Take an order. A client that had no answer sends it again with the same Idempotency-Key."""
    if store.is_on("closed"):
        return JsonResponse({"error": "the shop is closed"}, status=503)
    idempotency_key = request.headers.get("Idempotency-Key")
    if not idempotency_key:
        return JsonResponse({"error": "an order needs an Idempotency-Key"}, status=400)
    try:
        wanted = json.loads(request.body)
        item, count = str(wanted["item"]), int(wanted["count"])
    except (ValueError, KeyError, TypeError):
        return JsonResponse({"error": "an order has an item and a count"}, status=400)
    if not 0 < len(item) <= 100 or not 0 < count <= 1000:
        return JsonResponse({"error": "an order has 1 to 1000 pieces of one item"}, status=400)
    try:
        order, repeated = store.take_order(idempotency_key, item, count)
    except store.SoldOut:
        return JsonResponse({"error": "sold out"}, status=409)
    except store.KeyReused:
        return JsonResponse({"error": "this Idempotency-Key belongs to another order"}, status=422)
    except (haptera.ConnectionLost, haptera.DeadlineExceeded):
        # The order may have been taken: the same Idempotency-Key asks for its answer.
        return JsonResponse({"error": "send it again"}, status=503, headers={"Retry-After": "1"})
    return JsonResponse(asdict(order), status=200 if repeated else 201)


@csrf_exempt
@require_http_methods(["GET", "PUT"])
def flag(request: HttpRequest, name: str) -> HttpResponse:
    """Read a flag, or change the version of it that the caller has read."""
    db = store.database()
    if request.method == "GET":
        entry = db.get(f"flags/{name}")
        text, version = (entry.text, entry.version) if entry else ("off", 0)
    else:
        text = request.body.decode(errors="replace")
        tag = request.headers.get("If-Match", "").strip('"')
        if text not in {"on", "off"} or not tag.isdecimal():
            return JsonResponse({"error": "send on or off, and the ETag as If-Match"}, status=400)
        try:
            version = db.set(f"flags/{name}", text, if_version=int(tag))
        except haptera.VersionMismatch:
            return JsonResponse({"error": "the flag was changed meanwhile"}, status=412)
    return HttpResponse(text, content_type="text/plain", headers={"ETag": f'"{version}"'})
