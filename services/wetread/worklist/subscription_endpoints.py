"""Webhook subscriptions over HTTP: create, list, rotate the secret, test, delete, and see what became of deliveries."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Request, Response

from wetread.core.cloudevents import CONTENT_TYPE, notification
from wetread.core.errors import WetreadError
from wetread.core.events import Event, EventType
from wetread.core.instants import iso_utc
from wetread.core.ports import Delivery, DeliveryState, Subscription
from wetread.core.webhook_signature import check_secret, generate_secret
from wetread.worklist import schemas
from wetread.worklist.ports import WorklistPorts, tenant_of


def router(ports: WorklistPorts) -> APIRouter:
    """Return the routes, without their ``/api/v1`` prefix."""
    api = APIRouter(tags=["subscriptions"])

    @api.post("/subscriptions", status_code=201)
    def create(request: Request, body: schemas.SubscriptionIn) -> schemas.SubscriptionWithSecrets:
        """Subscribe a receiver. The answer shows the signing secrets; no later answer does."""
        ports.webhooks.check(body.url)
        subscription = Subscription(
            tenant=tenant_of(request),
            id=uuid.uuid4().hex,
            url=body.url,
            types=tuple(body.types),
            secrets=tuple(check_secret(secret) for secret in body.secrets) or (generate_secret(),),
            include_patient=body.include_patient,
            active=True,
            created_at=ports.clock.now(),
        )
        with ports.database.write() as tx:
            ports.subscriptions.put(tx, subscription)
        return _with_secrets(subscription)

    @api.get("/subscriptions")
    def list_subscriptions(request: Request) -> schemas.SubscriptionsOut:
        """Return the tenant's subscriptions, without their secrets."""
        with ports.database.read() as tx:
            found = ports.subscriptions.of_tenant(tx, tenant_of(request))
        return schemas.SubscriptionsOut(subscriptions=[_out(subscription) for subscription in found])

    @api.get("/subscriptions/{subscription_id}")
    def get(request: Request, subscription_id: str) -> schemas.SubscriptionOut:
        """Return one subscription, without its secrets."""
        with ports.database.read() as tx:
            return _out(ports.subscriptions.get(tx, tenant_of(request), subscription_id))

    @api.delete("/subscriptions/{subscription_id}", status_code=204)
    def delete(request: Request, subscription_id: str) -> Response:
        """Unsubscribe; what was still on its way is given up."""
        with ports.database.write() as tx:
            ports.subscriptions.delete(tx, tenant_of(request), subscription_id, now=ports.clock.now())
        return Response(status_code=204)

    @api.post("/subscriptions/{subscription_id}:rotate")
    def rotate(request: Request, subscription_id: str) -> schemas.SubscriptionWithSecrets:
        """Make a new secret. Until the next rotation requests are signed with the new and the old one."""
        with ports.database.write() as tx:
            old = ports.subscriptions.get(tx, tenant_of(request), subscription_id)
            new = replace(old, secrets=(generate_secret(), old.secrets[0]))
            ports.subscriptions.put(tx, new)
        return _with_secrets(new)

    @api.post("/subscriptions/{subscription_id}:test")
    def send_sample(request: Request, subscription_id: str) -> schemas.TestDeliveryOut:
        """Send a signed sample now and say what came of it."""
        tenant, now = tenant_of(request), ports.clock.now()
        with ports.database.read() as tx:
            subscription = ports.subscriptions.get(tx, tenant, subscription_id)
        sample = Event(
            id=f"sample-{uuid.uuid4().hex}",
            type=EventType.STUDY_RECEIVED,
            tenant=tenant,
            subject="0.0",
            time=now,
            data={"reason": "test of this subscription"},
            stamps={"sent": now},
        )
        body = orjson.dumps(notification(sample, public_url=str(request.base_url)))
        try:
            status = ports.webhooks.send(
                subscription.url, subscription.secrets, sample.id, body, {"content-type": CONTENT_TYPE}
            )
        except WetreadError as error:
            return schemas.TestDeliveryOut(delivered=False, status=None, detail=error.detail)
        return schemas.TestDeliveryOut(delivered=True, status=status, detail="delivered")

    @api.get("/subscriptions/{subscription_id}/deliveries")
    def deliveries(
        request: Request,
        subscription_id: str,
        *,
        state: DeliveryState | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> schemas.DeliveriesOut:
        """Return the latest deliveries, newest first; ``state=dead`` are the dead letters."""
        tenant = tenant_of(request)
        with ports.database.read() as tx:
            ports.subscriptions.get(tx, tenant, subscription_id)
            found = ports.deliveries.of_subscription(tx, tenant, subscription_id, state=state, limit=limit)
        return schemas.DeliveriesOut(deliveries=[_delivery_out(delivery) for delivery in found])

    return api


def _out(subscription: Subscription) -> schemas.SubscriptionOut:
    return schemas.SubscriptionOut(
        id=subscription.id,
        url=subscription.url,
        types=list(subscription.types),
        include_patient=subscription.include_patient,
        active=subscription.active,
        created_at=iso_utc(subscription.created_at),
    )


def _with_secrets(subscription: Subscription) -> schemas.SubscriptionWithSecrets:
    return schemas.SubscriptionWithSecrets(**_out(subscription).model_dump(), secrets=list(subscription.secrets))


def _delivery_out(delivery: Delivery) -> schemas.DeliveryOut:
    def moment(seconds: float | None) -> str | None:
        return None if seconds is None else iso_utc(seconds)

    return schemas.DeliveryOut(
        event_id=delivery.event_id,
        state=delivery.state,
        attempts=delivery.attempts,
        last_error=delivery.last_error,
        sent_at=moment(delivery.sent_at),
        next_attempt_at=moment(delivery.next_attempt_at),
        updated_at=iso_utc(delivery.updated_at),
    )
