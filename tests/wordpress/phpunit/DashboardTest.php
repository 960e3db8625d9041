<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Admin\DashboardPage;
use PMP\Analytics\Admin\DashboardWidget;
use PMP\Analytics\Reports\Reports;
use PMP_API_Client;
use PMP_Config;

/**
 * The dashboard's page, and the widget on the front page of wp-admin.
 */
final class DashboardTest extends SiteTestCase
{
    private const FIGURES = [
        ['key' => 'net_revenue', 'value' => 1990.5, 'compared' => 995, 'unit' => 'EUR'],
        ['key' => 'orders', 'value' => 1200, 'compared' => 5, 'unit' => 'orders'],
        ['key' => 'visitors', 'value' => 20, 'compared' => null, 'unit' => 'visitors'],
        ['key' => 'conversion_rate', 'value' => 0.125, 'compared' => 0.1, 'unit' => 'ratio'],
    ];

    public function test_the_page_carries_the_way_to_the_figures_and_no_key(): void
    {
        wp_set_current_user(1);
        $page = $this->page();

        self::assertMatchesRegularExpression('~src="https?://shop.example/wp-content/plugins/pmp-analytics/dashboard/index.html"~', $page);
        self::assertStringContainsString('data-rest="https://shop.example/wp-json/pmp/v1/mesh"', $page);
        self::assertStringContainsString('data-nonce="' . wp_create_nonce('wp_rest') . '"', $page);
        self::assertStringContainsString('data-language="en"', $page);
        self::assertStringNotContainsString('the-shops-key', $page);
    }

    public function test_a_shop_that_is_not_connected_is_sent_to_its_settings(): void
    {
        wp_set_current_user(1);
        self::assertStringContainsString('options-general.php?page=pmp-analytics', $this->page(new UnsetConfig()));
        wp_set_current_user($this->customer('manager', 'shop_manager'));
        $page = $this->page(new UnsetConfig());
        self::assertStringContainsString('not connected', $page);
        self::assertStringNotContainsString('options-general.php', $page);
    }

    public function test_the_widget_shows_seven_days_beside_the_seven_before(): void
    {
        $this->mesh->known['/api/v1/analytics/dashboard'] = ['figures' => self::FIGURES];
        $shown = $this->widget();

        foreach (['1,990.50', '995.00', '1,200', 'before: 5', '20', 'before: –', '12.5 %', 'before: 10.0 %'] as $text) {
            self::assertStringContainsString($text, $shown);
        }
        self::assertStringContainsString('admin.php?page=pmp-dashboard', $shown);
        $today = gmdate('Y-m-d', (int) MovedClock::START);
        $first = gmdate('Y-m-d', (int) MovedClock::START - 6 * 86_400);
        self::assertSame("from={$first}&to={$today}", $this->mesh->calls[0]['query']);
        self::assertSame(2, $this->mesh->calls[0]['arguments']['timeout']);
    }

    public function test_the_widget_says_that_its_figures_are_old_or_why_there_are_none(): void
    {
        $this->mesh->mood = 'down';
        self::assertStringContainsString('The mesh could not be reached: Connection refused', $this->widget());

        $this->mesh->mood = 'up';
        $this->mesh->known['/api/v1/analytics/dashboard'] = ['figures' => self::FIGURES];
        $this->widget();
        $this->mesh->mood = 'hanging';
        $this->clock->move(7200);
        $shown = $this->widget();
        self::assertStringContainsString('The mesh does not answer. These figures are 2 hours old.', $shown);
        self::assertStringContainsString('1,990.50', $shown);
    }

    public function test_only_those_who_may_see_reports_have_the_widget(): void
    {
        global $wp_meta_boxes;
        require_once ABSPATH . 'wp-admin/includes/dashboard.php';
        set_current_screen('dashboard');
        foreach ([[$this->customer(), false], [1, true]] as [$user_id, $is_there]) {
            $wp_meta_boxes = [];
            wp_set_current_user($user_id);
            $this->the_widget()->add_widget();
            self::assertSame($is_there, isset($wp_meta_boxes['dashboard']['normal']['core']['pmp-analytics-figures']));
        }
    }

    private function page(?PMP_Config $config = null): string
    {
        ob_start();
        (new DashboardPage($config ?? new PMP_Config(), PMP_ANALYTICS_FILE))->show();
        return (string) ob_get_clean();
    }

    private function the_widget(): DashboardWidget
    {
        $reports = new Reports(new PMP_API_Client(null, $this->clock), $this->clock);
        return new DashboardWidget($reports, new PMP_Config(), $this->clock);
    }

    private function widget(): string
    {
        ob_start();
        $this->the_widget()->show();
        return (string) ob_get_clean();
    }
}
