"""The shop in Django's admin: to look at, mostly."""

from django.contrib import admin

from shop.models import (
    ImportChunk,
    Invoice,
    MonthlyReport,
    Order,
    OrderImport,
    Product,
    RejectedRow,
    Thumbnail,
    TroubleSent,
    WebhookDelivery,
)


@admin.register(Product)
class ProductAdmin(admin.ModelAdmin):
    """Products."""

    list_display = ["sku", "name", "price_cents"]
    search_fields = ["sku", "name"]


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    """Orders; there are thousands of them."""

    list_display = ["reference", "customer", "product", "quantity", "total"]
    list_select_related = ["product"]
    search_fields = ["reference", "customer", "email"]
    date_hierarchy = "ordered_at"
    raw_id_fields = ["order_import"]


@admin.register(OrderImport)
class OrderImportAdmin(admin.ModelAdmin):
    """Partners' files."""

    list_display = [
        "file",
        "received_at",
        "finished_at",
        "rows_imported",
        "rows_rejected",
    ]


@admin.register(ImportChunk)
class ImportChunkAdmin(admin.ModelAdmin):
    """Parts of those files."""

    list_display = ["order_import", "first_line", "last_line", "finished_at"]
    list_select_related = ["order_import"]


@admin.register(RejectedRow)
class RejectedRowAdmin(admin.ModelAdmin):
    """Lines that did not become orders."""

    list_display = ["order_import", "line", "problem", "detail"]
    list_select_related = ["order_import"]
    list_filter = ["problem"]


@admin.register(Thumbnail)
class ThumbnailAdmin(admin.ModelAdmin):
    """Thumbnails."""

    list_display = ["file", "width", "height", "size_bytes", "made_at"]


@admin.register(Invoice)
class InvoiceAdmin(admin.ModelAdmin):
    """Invoices."""

    list_display = ["order", "file", "total_cents", "rendered_at"]
    list_select_related = ["order"]
    raw_id_fields = ["order"]


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(admin.ModelAdmin):
    """News for partners."""

    list_display = ["order", "path", "attempts", "delivered_at", "last_error"]
    list_select_related = ["order"]
    list_filter = ["path"]
    raw_id_fields = ["order"]


@admin.register(MonthlyReport)
class MonthlyReportAdmin(admin.ModelAdmin):
    """Monthly reports."""

    list_display = ["month", "orders", "customers", "units", "revenue", "built_at"]


@admin.register(TroubleSent)
class TroubleSentAdmin(admin.ModelAdmin):
    """Messages of the trouble page."""

    list_display = ["kind", "task_id", "sent_at"]
    list_filter = ["kind"]
    search_fields = ["task_id"]
