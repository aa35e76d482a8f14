"""The pages of the shop."""

from django.urls import path

from shop import views

app_name = "shop"

urlpatterns = [
    path("", views.home, name="home"),
    path("do/<slug:action>/", views.act, name="act"),
    path("imports/<int:pk>/", views.order_import, name="import"),
    path("trouble/", views.trouble, name="trouble"),
    path("trouble/<slug:key>/", views.send_trouble, name="send"),
]
