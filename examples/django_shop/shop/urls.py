"""The paths of the shop."""

from __future__ import annotations

from django.urls import path

from shop import views

urlpatterns = [
    path("orders", views.orders),
    path("flags/<slug:name>", views.flag),
]
